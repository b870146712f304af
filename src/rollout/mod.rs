//! Who consumes a value, whether they have the one that is there now, and who is restarted so that they do.
//!
//! ```text
//!   inventory ──► consumption: how many Pods are older than the value
//!        └──────► decide: whom to restart next ──► budget ──► act: a mark on the Pod template
//!                    ▲                                              │
//!                    └── what stands on the workloads themselves ◄──┘   (a new leader finds everything there)
//! ```

pub mod act;
pub mod announce;
pub mod budget;
pub mod change;
pub mod consumption;
pub mod decide;
pub mod mark;
pub mod roll;
pub mod stage;
