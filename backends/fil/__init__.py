"""Decision trees: XGBoost, LightGBM and CatBoost, with the config of Triton's FIL backend."""
