/** Shape of the compute array, as discovery (gc_info) and VBIOS (gfx_info) tell it alike. */
export const COMPUTE_SHAPE = {
  shaderEngines: 8,
  computeUnitsPerArray: 14,
  arraysPerEngine: 1,
  renderBackendsPerEngine: 4,
  textureChannelCaches: 16,
  registersPerUnit: 256,
  maxGsThreads: 32,
  gsTableDepth: 32,
  waveSize: 64,
  wavesPerUnit: 8,
  scratchSlotsPerUnit: 32,
  localDataShare: 64,
} as const;
