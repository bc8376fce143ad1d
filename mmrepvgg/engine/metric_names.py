"""The names of the metrics that a test can measure. Imports no torch."""

# name -> mmpretrain's metric, and the item of it
METRICS = {
    'accuracy': ('Accuracy', None),
    'precision': ('SingleLabelMetric', 'precision'),
    'recall': ('SingleLabelMetric', 'recall'),
    'f1-score': ('SingleLabelMetric', 'f1-score'),
    'support': ('SingleLabelMetric', 'support'),
    'confusion-matrix': ('ConfusionMatrix', None),
}
