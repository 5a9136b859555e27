"""A function that trains LightGBM (`pip install lightgbm`). A fold that was killed begins again."""

from lightgbm import LGBMRegressor

from ray_jobs import cross_validate

features = ["width_cm", "height_cm", "year"]


def train_fold(fold):
    model = LGBMRegressor(n_estimators=2000, num_leaves=7, random_state=fold.seed, n_jobs=fold.num_threads, verbose=-1)
    model.fit(fold.train[features], fold.train["price"])
    return model.predict(fold.validation[features]), model.predict(fold.test[features]), model


run = cross_validate(train_fold, data="lots.csv", test="new_lots.csv", target="price", id="id", folds=4)
print(run)
