//! Backends in memory that fail on demand, and the conformance suites that every boxpool backend runs.
//!
//! The suites are what a backend author works against: each promise of a trait is one named test. The simulated
//! backends pass the same suites as the real ones, which is why tests that use them can be believed.

pub mod backend;
pub mod conformance;
