"""Expert loads recorded from a small mixture-of-experts language model trained for this purpose."""
