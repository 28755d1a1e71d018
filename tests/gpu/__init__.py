"""What must hold on a GPU; `make gpu` runs it. FERHPO_GPU_DRY_RUN=1 runs on the CPU what does not need a GPU."""
