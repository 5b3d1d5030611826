//! Apache Cassandra, which has the same CQL and driver as ScyllaDB: one node.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::process::Process;
use crate::tls::Tls;
use crate::{Error, ports};

/// The JDK's packages that Cassandra uses, as in its own start script.
const EXPORTS: [&str; 12] = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.base/java.lang.reflect",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.rmi/sun.rmi.transport.tcp",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "jdk.compiler/com.sun.tools.javac.file",
];
const OPENS: [&str; 15] = [
    "java.base/java.io",
    "java.base/java.lang.module",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];
const LOGBACK: &str = r#"<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level [%thread] %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="OUT"/></root>
</configuration>
"#;

/// The Cassandra node of a set.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cassandra {
    java: PathBuf,
    jars: PathBuf,
    pub(crate) process: Process,
    pub(crate) tls: Option<Tls>,
    port: u16,
    storage_port: u16,
}

impl Cassandra {
    pub(crate) fn new(set: &Path, java: &Path, jars: PathBuf, tls: Option<Tls>) -> Self {
        let process = Process::new(set, "cassandra");
        Self {
            java: java.to_owned(),
            jars,
            process,
            tls,
            port: ports::free(),
            storage_port: ports::free(),
        }
    }

    /// Continues as the node that was here before, on its ports where they are still free.
    pub(crate) fn continue_as(&mut self, before: &Self) {
        self.port = ports::this_or_free(before.port);
        self.storage_port = ports::this_or_free(before.storage_port);
    }

    /// Stops the node (SIGTERM, after 20 s SIGKILL), and returns when it has ended.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&self) -> Result<(), Error> {
        self.process.stop()
    }

    /// Starts the node after [`Self::stop`], with its port and data, and waits until it answers.
    ///
    /// # Errors
    /// It does not answer within five minutes.
    pub fn start(&self) -> Result<(), Error> {
        self.spawn()?;
        self.wait()
    }

    /// The node's address.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Writes the node's settings.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let conf = self.conf();
        fs::create_dir_all(&conf).map_err(Error::io("create", &conf))?;
        for (name, text) in [
            ("cassandra.yaml", self.yaml()),
            ("logback.xml", LOGBACK.to_owned()),
        ] {
            let file = conf.join(name);
            fs::write(&file, text).map_err(Error::io("write", &file))?;
        }
        Ok(())
    }

    pub(crate) fn spawn(&self) -> Result<(), Error> {
        self.process.spawn(&self.java, self.arguments())
    }

    pub(crate) fn wait(&self) -> Result<(), Error> {
        self.process.wait_until(|| self.answers())
    }

    /// Whether the node accepts a CQL connection, and its user if it requires a login.
    pub(crate) fn answers(&self) -> io::Result<()> {
        const STARTUP: &[u8] = b"\x00\x01\x00\x0bCQL_VERSION\x00\x053.0.0";
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let answer = request(&mut stream, Opcode::Startup, STARTUP)?;
        match (&self.tls, answer) {
            (None, READY) => Ok(()),
            (Some(tls), AUTHENTICATE) => {
                let token = format!("\0{}\0{}", tls.user, tls.password);
                let length = token.len() as u32;
                let body = [&length.to_be_bytes(), token.as_bytes()].concat();
                match request(&mut stream, Opcode::AuthResponse, &body)? {
                    AUTH_SUCCESS => Ok(()),
                    _ => Err(io::Error::other("it has not created its user yet")),
                }
            }
            (_, opcode) => {
                let what = format!("it answers STARTUP with opcode {opcode:#04x}");
                Err(io::Error::other(what))
            }
        }
    }

    fn conf(&self) -> PathBuf {
        self.process.dir.join("conf")
    }

    fn arguments(&self) -> Vec<String> {
        let class_path = format!(
            "{}:{}",
            self.conf().display(),
            self.jars.join("*").display()
        );
        let mut arguments = vec!["-Xms256m".to_owned(), "-Xmx768m".to_owned()];
        arguments.extend(EXPORTS.map(|name| format!("--add-exports={name}=ALL-UNNAMED")));
        arguments.extend(OPENS.map(|name| format!("--add-opens={name}=ALL-UNNAMED")));
        arguments.extend([
            format!("-Dcassandra.storagedir={}", self.process.dir.display()),
            "-Dcassandra-foreground=yes".to_owned(),
            // A single node need not wait for gossip.
            "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
            "-Dcassandra.ring_delay_ms=100".to_owned(),
            "-Dcassandra.shutdown_announce_in_ms=0".to_owned(),
            "-Dcassandra.superuser_setup_delay_ms=0".to_owned(),
            "-Djdk.attach.allowAttachSelf=true".to_owned(),
            // From Java 18 on Cassandra does not start without this.
            "-Djava.security.manager=allow".to_owned(),
            "-cp".to_owned(),
            class_path,
            "org.apache.cassandra.service.CassandraDaemon".to_owned(),
        ]);
        arguments
    }

    fn yaml(&self) -> String {
        let dir = self.process.dir.display();
        let Self {
            port, storage_port, ..
        } = self;
        let secure = self
            .tls
            .as_ref()
            .map(Tls::cassandra_settings)
            .unwrap_or_default();
        format!(
            "\
cluster_name: doorbuster
num_tokens: 4
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {port}
storage_port: {storage_port}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"127.0.0.1:{storage_port}\"
commitlog_sync: periodic
commitlog_sync_period: 1000ms
commitlog_directory: \"{dir}/commitlog\"
data_file_directories: [\"{dir}/data\"]
saved_caches_directory: \"{dir}/saved_caches\"
hints_directory: \"{dir}/hints\"
cdc_raw_directory: \"{dir}/cdc_raw\"
{secure}"
        )
    }
}

/// The requests of version 4 of the CQL protocol that are used here.
enum Opcode {
    Startup = 0x01,
    AuthResponse = 0x0f,
}

const READY: u8 = 0x02;
const AUTHENTICATE: u8 = 0x03;
const AUTH_SUCCESS: u8 = 0x10;

/// Sends a frame, and returns the opcode of the answer.
fn request(stream: &mut TcpStream, opcode: Opcode, body: &[u8]) -> io::Result<u8> {
    /// More than any answer to these requests.
    const MOST: usize = 64 * 1024;

    let length = (body.len() as u32).to_be_bytes();
    let header = [0x04, 0, 0, 0, opcode as u8];
    stream.write_all(&[&header[..], &length, body].concat())?;
    let mut header = [0; 9];
    stream.read_exact(&mut header)?;
    let [version, _, _, _, opcode, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if version != 0x84 || length > MOST {
        return Err(io::Error::other("it does not answer as a CQL node"));
    }
    stream.read_exact(&mut vec![0; length])?;
    Ok(opcode)
}
