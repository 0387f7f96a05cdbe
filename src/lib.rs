//! luksmith creates, opens and keeps LUKS1 and LUKS2 volumes entirely in user space.
