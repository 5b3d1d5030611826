//! The variables that Kubernetes sets in every container beside a Service. For one with the name
//! `doorbuster`, or one that begins so, they begin like the variables of settings:
//! `DOORBUSTER_SERVICE_HOST`, `DOORBUSTER_PORT=tcp://10.0.0.1:80`, `DOORBUSTER_PORT_80_TCP_ADDR`.

/// Whether a variable, by its name after the prefix, in lower case, has the form of one of them.
pub(super) fn is_for_a_service(name: &str, text: Option<&str>) -> bool {
    let name = format!("_{name}");
    let is_url = || text.is_some_and(|text| text.contains("://"));
    name.ends_with("_service_host")
        || name.ends_with("_service_port")
        || name.contains("_service_port_")
        || name.ends_with("_port") && is_url()
        || is_port_by_number(&name)
}

/// Whether a name ends in `_port_80_tcp`, perhaps with one more word.
fn is_port_by_number(name: &str) -> bool {
    let mut words = name.rsplit('_').peekable();
    words.next_if(|word| ["proto", "port", "addr"].contains(word));
    let is_protocol = |word: &&str| ["tcp", "udp", "sctp"].contains(word);
    let is_number = |word: &&str| word.parse::<u16>().is_ok();
    words.next_if(is_protocol).is_some()
        && words.next_if(is_number).is_some()
        && words.next() == Some("port")
}
