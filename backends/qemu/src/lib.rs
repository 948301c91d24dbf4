//! Boxes as QEMU machines.

pub mod image;
