"""Figures of "Certified Low-Rank RTRL" (2026), a tanh network of 64 neurons, and which rows of ours
stand beside them.
"""

#: Mean cosine to the exact gradient: copy, adding, rotation, a^n b^n.
COSINE = {
    "snap 1": (0.691, 0.605, 0.414, 0.407),
    "sk_rtrl 4": (0.824, 0.883, 0.983, 0.982),
    "kf_rtrl": (0.528, 0.500, 0.560, 0.479),
    "rflo": (0.334, 0.579, 0.181, 0.485),
    "uoro": (0.04, 0.10, 0.055, 0.081),
}
#: Normalised squared error of online one-step prediction: Hénon, Mackey-Glass, Lorenz.
NMSE = {
    "rtrl": (0.0052, 0.0180, 0.0051),
    "sk_rtrl 16": (0.0064, 0.0105, 0.0128),
    "sk_rtrl 4": (0.0059, 0.0065, 0.0038),
    "snap 1": (0.0052, 0.0050, 0.0024),
    "kf_rtrl": (0.0384, 0.0286, 0.0126),
    "rflo": (0.0704, 0.0572, 0.0442),
    "uoro": (0.658, 0.0497, 0.0425),
    "tbptt": (0.0311, 0.0080, 0.0054),
}

#: A word on each row of ours that differs from the published one.
WORDS: dict[str, str] = {}
