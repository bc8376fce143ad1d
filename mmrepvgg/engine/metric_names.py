"""The metrics that a test can be asked for. Imports no torch."""

# name -> mmpretrain's metric and its item
METRICS = {
    'accuracy': ('Accuracy', None),
    'precision': ('SingleLabelMetric', 'precision'),
    'recall': ('SingleLabelMetric', 'recall'),
    'f1-score': ('SingleLabelMetric', 'f1-score'),
    'support': ('SingleLabelMetric', 'support'),
    'confusion-matrix': ('ConfusionMatrix', None),
}
