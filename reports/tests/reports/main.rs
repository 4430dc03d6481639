//! What the reports look like, at 80 and at 120 columns, and that none is ever wider than it may be.

mod readiness;
mod samples;
mod snapshots;
mod widths;
