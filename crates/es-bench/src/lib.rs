//! Workloads and measured systems.
