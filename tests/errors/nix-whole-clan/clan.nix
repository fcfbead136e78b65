{ self, ... }:
{
  meta.name = "burrow";
  machines.server1 = { config, pkgs, ... }: { services.openssh.enable = true; };
  inventory.machines.laptop1.tags = [ "laptop" ];
  inventory.instances = {
    vpn = {
      module = { name = "wireguard"; input = "clan-core"; };
      roles.controller.machines.server1.settings.endpoint = "vpn1.example.com";
      roles.controller.extraModules = [ self.nixosModules.vpn ];
      roles.peer.tags.laptops = { };
    };
    users = { roles.default.tags.all = { }; roles.default.settings = import ./secret.nix; };
  };
}
