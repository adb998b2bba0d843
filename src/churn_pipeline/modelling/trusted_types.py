"""The types of stored models that may be loaded."""

# Types that skops may load in addition to those it trusts by default. None of them runs code from the file. The boosting
# libraries read their own formats, which are data (docs/decisions/0018-lightgbm.md).
TRUSTED_TYPES: tuple[str, ...] = (
    "catboost.core.CatBoostClassifier",
    "churn_pipeline.modelling.candidates.CandidatePipeline",
    "churn_pipeline.modelling.ensemble.BlendedModel",
    "churn_pipeline.modelling.kernels.NystroemClassifier",
    "churn_pipeline.modelling.networks.NetworkClassifier",
    "churn_pipeline.modelling.preprocessing.QuantileSplines",
    "churn_pipeline.modelling.preprocessing.RandomPairs",
    "churn_pipeline.modelling.preprocessing.limit_scores",
    "churn_pipeline.modelling.preprocessing.round_to_float32",
    "churn_pipeline.modelling.target_encoding.CustomerTargetEncoder",
    "churn_pipeline.modelling.torch_network.TorchNetworkClassifier",
    "collections.OrderedDict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.model_selection._split.GroupKFold",
    "sklearn.tree._tree.Tree",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
)
