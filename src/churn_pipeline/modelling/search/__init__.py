"""Hyperparameter search: settings, sampler, pruning, the trials and their order, and the digest that names a study."""

from churn_pipeline.modelling.search.digest import study_digest
from churn_pipeline.modelling.search.run import SearchResult, search_candidate
from churn_pipeline.modelling.search.settings import SearchSettings

__all__ = ["SearchResult", "SearchSettings", "search_candidate", "study_digest"]
