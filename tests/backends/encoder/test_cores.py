"""How the cores are shared by those who compute at the same time with one model."""

from trivet.backends.encoder.cores import Cores


def test_who_works_alone_has_all_and_of_several_each_its_share() -> None:
    cores = Cores(4)

    with cores.shared() as first, cores.shared() as second, cores.shared() as third:
        assert (first, second, third) == (4, 2, 1)
    with cores.shared() as again:
        assert again == 4


def test_nobody_has_less_than_one() -> None:
    cores = Cores(1)

    with cores.shared() as first, cores.shared() as second:
        assert (first, second) == (1, 1)
