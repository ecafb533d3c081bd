//! A little OpenTelemetry collector: it takes OTLP over HTTP and keeps what it was told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// What happens to a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Take,
    /// Another status than 200: it is not kept.
    Refuse(u16),
    /// No answer, for longer than any test takes.
    Hang,
}

/// A request as it arrived.
pub(crate) struct Batch {
    /// Request line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) content: ExportTraceServiceRequest,
}

pub(crate) struct Collector {
    pub(crate) url: String,
    batches: Arc<Mutex<Vec<Batch>>>,
}

impl Collector {
    /// Serves until the process ends. `reply` gets the number of each batch, from 0.
    pub(crate) fn start(reply: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let batches = Arc::<Mutex<Vec<Batch>>>::default();
        let kept = Arc::clone(&batches);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                serve(stream.unwrap(), reply(number), &kept);
            }
        });
        Self { url, batches }
    }

    /// All that was taken so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Batch]) -> T) -> T {
        look(&self.batches.lock().unwrap())
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.look(|batches| {
            let resources = batches.iter().flat_map(|batch| &batch.content.resource_spans);
            resources
                .flat_map(|resource| &resource.scope_spans)
                .flat_map(|scope| &scope.spans)
                .cloned()
                .collect()
        })
    }

    pub(crate) fn resource(&self) -> Resource {
        self.look(|batches| batches[0].content.resource_spans[0].resource.clone().unwrap())
    }

    /// The span of the job with this id.
    pub(crate) fn job(&self, id: &str) -> Option<Span> {
        self.spans()
            .into_iter()
            .find(|span| span.name == "job" && text(&span.attributes, "id").as_deref() == Some(id))
    }
}

/// An attribute that is a text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    match value(attributes, key)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// An attribute that is a number.
pub(crate) fn number(attributes: &[KeyValue], key: &str) -> Option<i64> {
    match value(attributes, key)? {
        Value::IntValue(number) => Some(number),
        _ => None,
    }
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value
}

/// One batch for each connection.
fn serve(mut stream: TcpStream, reply: Reply, kept: &Mutex<Vec<Batch>>) {
    let (head, body) = read(&stream);
    let status = match reply {
        Reply::Take => 200,
        Reply::Refuse(status) => status,
        Reply::Hang => {
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(3600));
                drop(stream);
            });
            return;
        }
    };
    if status == 200 {
        let content = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        kept.lock().unwrap().push(Batch { head, body, content });
    }
    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _whoever_asked_may_be_gone = stream.write_all(answer.as_bytes());
}

fn read(stream: &TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, body)
}
