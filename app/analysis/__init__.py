"""What a comparison finds beside its verdict: pure functions of classifiers' answers and of texts."""
