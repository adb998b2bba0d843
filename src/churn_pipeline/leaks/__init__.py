"""Finds features that give the label away: columns that are filled in, or changed, because a customer churned."""

from churn_pipeline.leaks.detector import find_leaks
from churn_pipeline.leaks.report import LeakFinding, LeakReport
from churn_pipeline.leaks.settings import LeakSettings

__all__ = ["LeakFinding", "LeakReport", "LeakSettings", "find_leaks"]
