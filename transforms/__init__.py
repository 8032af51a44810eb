"""One clip's work as plain functions: decode, pose, render, flow; and the PTransform that applies it to shards."""
