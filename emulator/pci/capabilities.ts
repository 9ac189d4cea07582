/** Every capability that a function can list; one file each. */
export { type AccessControlServicesOptions, accessControlServices } from './access-control-services.js';
export { advancedErrorReporting } from './advanced-error-reporting.js';
export type { Capability } from './capability.js';
export type { CapabilityPlacement } from './capability-layout.js';
export { type DeviceSerialNumberOptions, deviceSerialNumber } from './device-serial-number.js';
export { type MsiOptions, msi } from './msi.js';
export { type MsixOptions, msix } from './msix.js';
export { type PciExpressOptions, pciExpress } from './pci-express.js';
export { powerManagement } from './power-management.js';
export { type ResizableBarOptions, resizableBar } from './resizable-bar.js';
export { type VendorSpecificOptions, vendorSpecific } from './vendor-specific.js';
export { type VendorSpecificExtendedOptions, vendorSpecificExtended } from './vendor-specific-extended.js';
