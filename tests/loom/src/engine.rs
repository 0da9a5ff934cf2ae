//! Ghost searches.

#[path = "../../../src/engine/ghosts/claims.rs"]
pub mod claims;
#[path = "../../../src/engine/zone_client.rs"]
pub mod zone_client;
