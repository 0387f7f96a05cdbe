//! The tokens of a header that a command may use to unlock.

use clap::Args;
use luksmith::task::tokens::Choice;
use luksmith::tokens::tpm2::Device;
use luksmith::tokens::{TokenOptions, TokenType};

/// The tokens of the header that may be used. Without an option none is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Token")]
pub(crate) struct TokenArgs {
    /// Find the passphrase with token N of the header (LUKS2)
    ///
    /// A header is written by strangers, so no token is used without this option or --token-type.
    /// --key SOURCE then has what the token asks for: the recovery key of a token of type
    /// systemd-recovery, the PIN of a token of type systemd-tpm2. Where --key names several
    /// passphrases, it is asked for on the terminal, or is a line of stdin. May be given again: the
    /// tokens are tried in this order.
    #[arg(
        long,
        visible_alias = "token-id",
        value_name = "N",
        group = "chosen_token"
    )]
    pub(crate) token: Vec<u32>,

    /// Find the passphrase with the tokens of this type, in the order of their numbers:
    /// luks2-keyring, systemd-recovery, systemd-tpm2, clevis; may be given again
    #[arg(long, value_name = "TYPE", value_parser = parse_type, group = "chosen_token")]
    pub(crate) token_type: Vec<TokenType>,

    /// The TPM of tokens of type systemd-tpm2: the path of a device, or unix:SOCKET of swtpm
    /// [default: /dev/tpmrm0]
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub(crate) tpm2_device: Option<Device>,

    /// Permit a token of type clevis to ask the Tang server at URL; may be given again. A server
    /// that only the header names is never asked
    #[arg(long, value_name = "URL")]
    pub(crate) tang_url: Vec<String>,
}

fn parse_device(text: &str) -> Result<Device, String> {
    text.parse::<Device>().map_err(|error| error.to_string())
}

fn parse_type(text: &str) -> Result<TokenType, String> {
    let parsed: Result<TokenType, _> = text.parse();
    parsed.map_err(|error| error.to_string())
}

impl TokenArgs {
    /// The tokens that may be used.
    pub(crate) fn choices(&self) -> Vec<Choice> {
        let numbers = self.token.iter().copied().map(Choice::Id);
        let types = self.token_type.iter().copied().map(Choice::OfType);
        numbers.chain(types).collect()
    }

    /// Whether tokens may be used.
    pub(crate) fn is_given(&self) -> bool {
        !(self.token.is_empty() && self.token_type.is_empty())
    }

    /// The same for other tokens.
    pub(crate) fn choosing(&self, choices: &[Choice]) -> Self {
        let mut chosen = self.clone();
        (chosen.token, chosen.token_type) = (Vec::new(), Vec::new());
        for choice in choices {
            match choice {
                Choice::Id(id) => chosen.token.push(*id),
                Choice::OfType(kind) => chosen.token_type.push(*kind),
            }
        }
        chosen
    }

    /// What these tokens may use.
    pub(crate) fn options(&self) -> TokenOptions {
        let device = self.tpm2_device.clone().unwrap_or_default();
        let mut options = TokenOptions::default().tpm2_device(device);
        options.tang_urls.clone_from(&self.tang_url);
        options
    }
}
