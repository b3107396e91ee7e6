"""How well a model predicts: predictions for a dataset's rows, scores of them by target."""
