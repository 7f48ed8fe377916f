//! What others want to do with messages on their way out.

use baton_core::Message;

use super::receipt::{Receipt, SendError};

/// Sees every message on its way out, as Kafka's `ProducerInterceptor` does. Several are called in the order in which they were added;
/// the stamp comes after all of them, so none can change it, and each sees what the ones before it made of the message.
///
/// ```
/// use baton::{Interceptor, Message, Reason, Receipt, SendError};
///
/// struct Tenant;
///
/// impl Interceptor for Tenant {
///     fn on_send(&self, message: &mut Message) -> Result<(), String> {
///         message.headers.set("tenant", Some("north".into()));
///         Ok(())
///     }
/// }
/// ```
pub trait Interceptor: Send + Sync {
    /// Before the message is taken, on the thread of who sends. What this refuses is not sent, and its sender is told why.
    ///
    /// # Errors
    /// When the message must not be sent.
    fn on_send(&self, message: &mut Message) -> Result<(), String> {
        let _ = message;
        Ok(())
    }

    /// The engine has it. On the producer's own task: must not block.
    fn on_acknowledged(&self, receipt: &Receipt) {
        let _ = receipt;
    }

    /// It was given up. On the producer's own task: must not block.
    fn on_failed(&self, error: &SendError) {
        let _ = error;
    }
}
