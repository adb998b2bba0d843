"""Model quality compared with other tools: `make benchmark-quality`.

Each set of tables has its own result: `shown` (benchmarks/results/quality.md) and `development` (quality_development.md). All
contenders get the same rows and the same columns: the features of the table's contract. Protected columns are no features, so no
contender gets them. Every contender runs in its own environment. `ours` is the complete training, search and choice included.

Scores are stored in benchmarks/results/quality, one line per fold and contender, so that an interrupted benchmark resumes, also on
another machine. Probabilities stay in build/quality.
"""
