//! Kafka's metadata request, version 1: the brokers that a broker knows.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The numbers of the cluster's brokers that the broker at this port knows.
pub(super) fn listed_brokers(port: u16) -> io::Result<Vec<i32>> {
    const REQUEST: [u8; 18] = [
        0, 0, 0, 14, // bytes that follow
        0, 3, 0, 1, // metadata, version 1
        0, 0, 0, 1, // the request's number
        255, 255, // no client id
        0, 0, 0, 0, // no topics
    ];
    /// More than the answer for three brokers; a server that sends more is not a broker of ours.
    const MOST: usize = 64 * 1024;

    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MOST {
        return Err(io::Error::other("it does not answer as a Kafka broker"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    read_brokers(&answer).ok_or_else(|| io::Error::other("its list of brokers is incomplete"))
}

/// Parses the list of brokers, which follows the request's number.
fn read_brokers(answer: &[u8]) -> Option<Vec<i32>> {
    let mut rest = answer.get(4..)?;
    let number = |bytes: &mut &[u8]| -> Option<i32> {
        let (first, after) = bytes.split_first_chunk()?;
        *bytes = after;
        Some(i32::from_be_bytes(*first))
    };
    /// Skips host or rack; an absent one has length -1.
    fn skip_string(bytes: &mut &[u8]) -> Option<()> {
        let (length, after) = bytes.split_first_chunk()?;
        let length = i16::from_be_bytes(*length).max(0) as usize;
        *bytes = after.get(length..)?;
        Some(())
    }
    let count = number(&mut rest)?;
    (0..count)
        .map(|_| {
            let broker = number(&mut rest)?;
            skip_string(&mut rest)?; // host
            number(&mut rest)?; // port
            skip_string(&mut rest)?; // rack
            Some(broker)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_brokers_is_read_to_its_end() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 2];
        for broker in [1, 3] {
            answer.extend([0, 0, 0, broker, 0, 2, b'a', b'b', 0, 0, 35, 132, 255, 255]);
        }
        assert_eq!(read_brokers(&answer), Some(vec![1, 3]));
        for length in 0..answer.len() {
            assert_eq!(
                read_brokers(&answer[..length]),
                None,
                "cut to {length} bytes"
            );
        }
    }
}
