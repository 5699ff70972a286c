"""Every enumeration that options choose from, once. Nothing here needs JAX."""

# Each name is that of a function of `jax.nn`.
ACTIVATIONS = {
    "linear": "identity",
    "relu": "relu",
    "tanh": "tanh",
    "hard_tanh": "hard_tanh",
    "leaky_relu": "leaky_relu",
    "gelu": "gelu",
    "selu": "selu",
    "silu": "silu",
}
ARCHITECTURES = ("mlp", "cnn", "bimodal")
POOLINGS = ("max", "avg", "stride")
UPSAMPLINGS = ("transpose", "resize")
# Each name is that of a function of `jax.nn`.
OUTPUTS = {"identity": "identity", "tanh": "tanh", "sigmoid": "sigmoid"}
PARAMETERISATIONS = ("standard", "mupc")
LABEL_LOSSES = ("squared", "cross_entropy")
MODES = ("supervised", "hybrid", "unsupervised")
INITS = ("amortised", "generative", "zeros", "noise")
REDUCTIONS = ("mean", "sum")
MATMUL_PRECISIONS = ("bfloat16", "tensorfloat32", "float32", "highest")
HIDDEN_PARTS = ("top", "left", "random", "square")  # of images that are completed
UNLABELLED = ("infer", "drop")
SAMPLED_LABELS = ("clamped", "free")
CHECKPOINTS = ("last", "best")
ON_DIVERGENCE = ("stop", "continue_sweep")
ON_INSTABILITY = ("warn", "stop", "ignore")
FIGURE_FORMATS = ("png", "svg", "pdf")
WANDB_MODES = ("offline", "online")
LAUNCHERS = ("basic", "vmap", "joblib", "submitit_slurm", "submitit_local")
GROUPS = ("algorithm", "model", "optim", "inference", "data", "logger", "experiment", "debug")
# The sections of `--help`, in order. A group's options are in that of its name.
SECTIONS = {
    "evaluation": "Evaluation",
    "data": "Data",
    "model": "Model",
    "algorithm": "Algorithm and energy",
    "inference": "Inference",
    "optim": "Optimisation",
    "diagnosis": "Diagnostics",
    "sampling": "Sampling",
    "run": "Run",
    "logger": "Logging and checkpoints",
    "plots": "Figures",
    "compute": "Compute",
}
