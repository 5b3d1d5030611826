//! The names of the environment variables.

/// The prefix of all environment variables of the product.
pub(super) const PREFIX: &str = "DOORBUSTER_";
/// The variable that names the settings file.
pub(super) const FILE_VARIABLE: &str = "DOORBUSTER_CONFIG";

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}
