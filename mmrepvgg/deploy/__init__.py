"""From a trained model to a deployed one."""
