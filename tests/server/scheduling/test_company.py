"""Who waits for company, and who does not."""

from trivet.server.scheduling.policy import FIRST_ALONE, LOOK_AGAIN, Company


def alone() -> Company:
    company = Company()
    for _ in range(FIRST_ALONE):
        assert company.is_expected()
        company.found(1)
    return company


def test_requests_wait_for_others_until_some_have_come_alone() -> None:
    assert not alone().is_expected()


def test_one_that_has_come_with_others_makes_all_wait_again() -> None:
    company = alone()
    company.found(2)
    for _ in range(FIRST_ALONE - 1):
        assert company.is_expected()
        company.found(1)
    assert company.is_expected()


def test_it_is_looked_again_after_a_while() -> None:
    company = alone()
    assert [company.is_expected() for _ in range(LOOK_AGAIN)] == [False] * LOOK_AGAIN
    assert company.is_expected()
    company.found(1)
    assert not company.is_expected()
