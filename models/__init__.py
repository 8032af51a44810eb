"""PyTorch Lightning: networks, streams, distillation, data, evaluation, prediction. Knows no Beam."""
