//! placeholder
pub mod bedrock;
pub mod cdn;
