"""What attention does in a trained model: indicators of its maps, and the scores before the softmax (method.md)."""
