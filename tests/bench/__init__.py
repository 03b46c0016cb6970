"""Speed, as ratios within one run: what Holdfast does against what the ground beneath it allows."""
