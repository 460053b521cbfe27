"""The table of dashboards: a new one is a module beside this file, a row here, and its test.

The first line of a module is the question that its dashboard answers; a panel is an entry of its board's rows.
"""

from powerhall_dashboards.boards.bills import BILLS_BOARD
from powerhall_dashboards.boards.cooling import COOLING_BOARD
from powerhall_dashboards.boards.hall import HALL_BOARD
from powerhall_dashboards.boards.health import HEALTH_BOARD
from powerhall_dashboards.boards.job import JOB_BOARD
from powerhall_dashboards.boards.node import NODE_BOARD
from powerhall_dashboards.boards.optimizer import OPTIMIZER_BOARD
from powerhall_dashboards.boards.site import SITE_BOARD
from powerhall_dashboards.model import Board

__all__ = ["BOARDS"]

BOARDS: tuple[Board, ...] = (
    SITE_BOARD,
    HALL_BOARD,
    COOLING_BOARD,
    NODE_BOARD,
    JOB_BOARD,
    OPTIMIZER_BOARD,
    HEALTH_BOARD,
    BILLS_BOARD,
)
