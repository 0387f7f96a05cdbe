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
    /// systemd-recovery, the PIN of a token of type systemd-tpm2.
    #[arg(
        long,
        visible_alias = "token-id",
        value_name = "N",
        group = "chosen_token"
    )]
    pub(crate) token: Option<u32>,

    /// Find the passphrase with the tokens of this type, in the order of their numbers:
    /// luks2-keyring, systemd-recovery, systemd-tpm2, clevis
    #[arg(long, value_name = "TYPE", value_parser = parse_type, group = "chosen_token")]
    pub(crate) token_type: Option<TokenType>,

    /// The TPM of tokens of type systemd-tpm2: the path of a device, or unix:SOCKET of swtpm
    /// [default: /dev/tpmrm0]
    #[arg(long, value_name = "DEVICE", value_parser = parse_device)]
    pub(crate) tpm2_device: Option<Device>,

    /// Permit a token of type clevis to ask the Tang server at URL; may be given again. A server
    /// that only the header names is never asked
    #[arg(long, value_name = "URL", requires = "chosen_token")]
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
    pub(crate) fn choice(&self) -> Option<Choice> {
        let one = self.token.map(Choice::Id);
        one.or(self.token_type.map(Choice::OfType))
    }

    /// What these tokens may use.
    pub(crate) fn options(&self) -> TokenOptions {
        let device = self.tpm2_device.clone().unwrap_or_default();
        let mut options = TokenOptions::default().tpm2_device(device);
        options.tang_urls.clone_from(&self.tang_url);
        options
    }
}
