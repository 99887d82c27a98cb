//! Watches: one stream of requests in, one stream of responses out.

use std::future::ready;
use std::pin::Pin;

use etcd_client::proto::{PbWatchRequest, PbWatchResponse, PbWatchService};
use futures::{Stream, StreamExt as _, stream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::owner::{Command, Handle};
use super::super::watchers::Outgoing;

pub(super) struct Watch(pub(super) Handle);

/// What the merged stream carries: the queue's end must end it, though the client may go on talking.
enum Step {
    Nothing,
    Send(Result<PbWatchResponse, Status>),
    End,
}

#[tonic::async_trait]
impl PbWatchService for Watch {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<PbWatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (stream_id, queue) = self.0.call(Command::OpenWatches).await?;
        let handle = self.0.clone();
        let requests = request.into_inner().then(move |request| {
            let handle = handle.clone();
            async move {
                match request {
                    Ok(PbWatchRequest { request_union: Some(request) }) => match handle.watch(stream_id, request).await
                    {
                        Ok(()) => Step::Nothing,
                        Err(status) => Step::Send(Err(status)),
                    },
                    Ok(PbWatchRequest { request_union: None }) => Step::Nothing,
                    // The client is gone, or said something we cannot read.
                    Err(_) => Step::End,
                }
            }
        });
        let responses = ReceiverStream::new(queue).map(|outgoing| match outgoing {
            Outgoing::Message(message) => Step::Send(Ok(message.into_response())),
            Outgoing::End(status) => Step::Send(Err(status)),
        });
        // Both run in the task that writes the response: no other task to own, and it ends with the call.
        let merged = stream::select(requests, responses.chain(stream::once(ready(Step::End))))
            .take_while(|step| ready(!matches!(step, Step::End)))
            .filter_map(|step| ready(if let Step::Send(response) = step { Some(response) } else { None }));
        Ok(Response::new(Box::pin(merged)))
    }
}
