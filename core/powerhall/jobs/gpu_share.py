"""The share of one GPU that a job asks for (MIG instance, shard, MPS or time slice), exact: 1/7 is 1/7."""

import re
from fractions import Fraction

__all__ = ["LEAST_SHARE", "parse_share"]

LEAST_SHARE = Fraction(1, 1000)
_TEXT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})|([0-9]{0,3}\.?[0-9]{1,6})(%?)")


def parse_share(text: str) -> Fraction:
    """Return a share such as "1/7", "0.25" or "25%"; ValueError where it is none from 1/1000 to 1."""
    found = _TEXT.fullmatch(text.strip())
    share = Fraction(0)
    if found is not None and found[1] is not None:
        share = Fraction(int(found[1]), int(found[2])) if int(found[2]) else share
    elif found is not None:
        share = Fraction(found[3]) / (100 if found[4] else 1)
    if not LEAST_SHARE <= share <= 1:
        raise ValueError("must be a share of one GPU from 1/1000 to 1, such as 1/7 or 0.25")
    return share
