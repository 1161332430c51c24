"""glm_runtime as the model `glm-onnx` of lm-evaluation-harness.

    lm_eval --model glm-onnx --model_args folder=artifacts/glm4-int4 --tasks hellaswag

Read `model.py` first. lm-eval is an extra, so nothing here is imported by the other packages before
it is needed.
"""
