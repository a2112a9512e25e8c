"""What keys have used at all servers that have them: sums in Redis, which each server adds to.

`totals` is the arithmetic, `redis_totals` the sums, `exchange` brings them to the limits of `auth`
and the budgets of `cost`.
"""
