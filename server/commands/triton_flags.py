"""Triton's flags that are no settings here, so that start scripts go on working. Pure."""

# Triton flags without a meaning here: taken, so that start scripts go on working, and named once.
IGNORED_FLAGS = (
    "--http-thread-count",
    "--grpc-infer-thread-count",
    "--grpc-infer-allocation-pool-size",
    "--grpc-max-response-pool-size",
    "--buffer-manager-thread-count",
    "--pinned-memory-pool-byte-size",
    "--cuda-memory-pool-byte-size",
    "--min-supported-compute-capability",
    "--backend-directory",
    "--repoagent-directory",
    "--cache-directory",
    "--reuse-http-port",
    "--reuse-grpc-port",
    "--enable-peer-access",
    "--cuda-virtual-address-size",
    "--allow-sagemaker",
    "--sagemaker-port",
    "--sagemaker-safe-port-range",
    "--sagemaker-thread-count",
    "--allow-vertex-ai",
    "--vertex-ai-port",
    "--vertex-ai-thread-count",
    "--vertex-ai-default-model",
)

# Flags of older Tritons that are part of another option's value now.
OLDER_FLAGS = {
    "--trace-file": ("--trace-config", "triton,file="),
    "--trace-level": ("--trace-config", "level="),
    "--trace-rate": ("--trace-config", "rate="),
    "--trace-count": ("--trace-config", "count="),
    "--trace-log-frequency": ("--trace-config", "triton,log-frequency="),
}
