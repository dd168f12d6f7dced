//! Ways to the server: one that can be cut, where connections are handed through as they are until they are not, and a proxy
//! that has to be asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Proxy {
    pub async fn to((host, port): &(String, u16)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, state) = watch::channel(true);
        let target = format!("{host}:{port}");
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut state, target) = (state.clone(), target.clone());
                // Closed at once while the way is cut.
                if !*state.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}

/// A proxy that is asked by `CONNECT`, and remembers for what.
pub struct Tunnel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let known = asked.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let known = known.clone();
                tokio::spawn(async move {
                    let mut near = BufReader::new(near);
                    let mut request = String::new();
                    while near.read_line(&mut request).await.is_ok_and(|read| read > 2) {}
                    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    known.lock().unwrap().push(request);
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    if near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self { address, asked }
    }

    pub fn url(&self) -> String {
        format!("http://me:word@{}", self.address)
    }

    /// What was asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}
