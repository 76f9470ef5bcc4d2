"""Model versions in MLflow: registered, judged by gates, promoted, rolled back."""
