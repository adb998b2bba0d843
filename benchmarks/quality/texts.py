"""The words of the results: how quality is measured, and which tables took part in which choice."""

TITLES = {
    "shown": "Model quality compared with other tools (nested cross-validation)",
    "development": "Model quality on the development tables (nested cross-validation)",
}

# Earlier looks: `git log --follow` of outer_folds_telco.md (1) and quality.md (2 measurements, 2 changes of text).
USE = {
    "shown": (
        "**What these tables were used for.** The settings of the candidates up to commit 92996de were chosen with these tables in "
        "view, so their figures are optimistic. Later settings are chosen on inner folds, simulated tables and the development "
        "tables; these outer folds are measured once, at the end. Three earlier measurements of outer folds are in the history: "
        "one on telco (5f93422), one of logistic regression and untuned boosting on iranian (021bd29), and one of all contenders on "
        "all three tables (4c7a5ce, shown until 92996de). Two more were stopped after a few folds and are not shown; they revealed "
        "that mlc_churn had become worse, because searches ended too early (fixed in fa12f56). The figures below were measured while other "
        "programs used the same two cores (load average 2 to 14). `ours` stops by the clock, so it tried fewer settings than on a "
        "quiet machine; the single library models do not stop by the clock.\n\n"
        "The two age columns of iranian are protected, so no contender gets them. They make the table easier: on the plain folds, "
        "`HistGradientBoostingClassifier()` has a log loss of 0.1070 with them and 0.1298 without them. Figures that other sources "
        "measured with all columns, such as 0.0901 for AutoGluon in 150 s, are therefore not comparable."
    ),
    "development": (
        "**What these tables were used for.** Settings are chosen on these tables, on inner folds and on simulated tables, from "
        "commit 92996de on. No setting before that commit was chosen on them. Figures of ours on these tables are therefore "
        "optimistic to the extent that the choice of settings fits them; the other tools were not tuned on them."
    ),
}

HOW = (
    "Five outer folds of each table. Plain folds are `StratifiedKFold(5, shuffle=True, random_state=0)`. In grouped folds "
    "(`StratifiedGroupKFold`, same arguments) rows with identical features stay in the same fold. The column `measured` counts the "
    "folds that a contender has; its means are over these, and comparisons are over the folds that both contenders have.\n\n"
    "All contenders get the same columns: the features of the table's contract. Protected columns are no features, so no contender "
    "gets them. Where rows belong together, every contender that accepts groups gets them: ours, both `flaml`, both `autogluon_…` and "
    "`lightgbm_bagged`. On ecommerce, ids differ although rows repeat; "
    "there the groups come from the benchmark, also for ours.\n\n"
    "- `ours` runs the project's own nodes in each outer fold: inner folds, search, fit, comparison, calibration, choice. Rows named "
    "`our …` are single candidates, each tuned separately. The default budget of 60 s covers the whole training, so about half of it is "
    "left for search and fit in a fold. `ours_minute` has `search.seconds: 125`, which gives them about a minute.\n"
    "- `logistic` is scikit-learn's `LogisticRegression` with median imputation, scaling and one-hot encoding; `untuned_boosting` is "
    "`HistGradientBoostingClassifier()`; `catboost` and `xgboost` have default settings.\n"
    "- `lightgbm_bagged` has 31 leaves and learning rate 0.03, stops early on each of five inner folds and averages the five models.\n"
    "- `flaml` has 60 s, and `flaml_ensemble` also builds its stacked ensemble; `autogluon_150` and `autogluon_600` have 150 and "
    "600 s, the preset `best_quality` and all packages of `autogluon.tabular[all]`. They optimise log loss. All contenders use two cores.\n\n"
    "A difference is the mean over folds of the contender's log loss minus ours: a positive one means that ours is better. Its "
    "interval is the t-interval of the paired differences with n - 1 degrees of freedom. `ours is` says `lower` or `higher` only "
    "if the interval excludes zero, otherwise `level`; with fewer than three common folds it says `too few folds`. Folds share "
    "training rows, so the intervals are somewhat too narrow, and each row makes its own comparison: of twenty true ties, about one "
    "would be called lower or higher. The best single library model is chosen on the same outer folds, which favours it. Ranks use "
    "the folds that all ranked contenders have, grouped where a table has them.\n\n"
    "The last two columns of the first table are the time of the ONNX model in the service's session, single-threaded: the median of "
    "single rows, and the time per row in batches of 1,000. Seconds include fit and prediction. Made by `make benchmark-quality`."
)
