//! The controller as its peers see it: started in this process on port 0, spoken to over real TLS and its real socket.

mod access;
mod benches;
mod blobs;
mod enrolment;
mod estimate;
mod harness;
mod import;
mod link;
mod plan;
mod restore;
