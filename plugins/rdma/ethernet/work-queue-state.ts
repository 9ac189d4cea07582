/** sqc.state and rqc.state (mlx5_ifc.h `MLX5_SQC_STATE_*`, `MLX5_RQC_STATE_*`). */
export const WQ_STATE = { RESET: 0, READY: 1, ERROR: 3 } as const;
