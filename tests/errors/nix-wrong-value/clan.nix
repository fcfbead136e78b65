{
  instances = {
    vpn = {
      module.name = "wireguard";
      roles.controller.machines.server1.settings.endpoint = "vpn1.example.com";
      roles.peer.machines.laptop1 = { settings = { mtu = 100; interface = "wg 0"; }; };
    };
  };
}
