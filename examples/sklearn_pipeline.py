"""A pipeline of scikit-learn that learns classes. Each fold fits a copy; one that was killed begins again."""

from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ray_jobs import cross_validate

pipeline = make_pipeline(
    make_column_transformer(
        (StandardScaler(), ["width_cm", "height_cm", "year", "price"]),
        (OneHotEncoder(handle_unknown="ignore"), ["seller"]),
    ),
    RandomForestClassifier(n_estimators=1000, random_state=0),
)
run = cross_validate(pipeline, data="lots.csv", target="school", id="id", folds=4)
print(run)
