"""Microsoft's own SDK against the simulated service. Usage: sdk.py URL. Prints one line for each thing that held."""
import sys
import time

from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient


class Anybody:
    def get_token(self, *scopes, **kwargs):
        return AccessToken("simulated", int(time.time()) + 3600)


class PlainBearer(SansIOHTTPPolicy):
    """The SDK's own policy refuses to send a token without TLS."""

    def on_request(self, request):
        request.http_request.headers["Authorization"] = "Bearer simulated"


client = ComputeManagementClient(
    Anybody(), "sub", base_url=sys.argv[1], authentication_policy=PlainBearer(),
    polling_interval=0.05, retry_total=3, retry_backoff_factor=0.05,
)
group, place = "rg", "westeurope"


def held(what, true):
    if not true:
        sys.exit(f"not so: {what}")
    print(what)


def refused(what, kind, code, call):
    try:
        call()
    except kind as error:
        held(f"{what}: {error.status_code} {error.error.code if error.error else None}",
             code in (error.error.code if error.error else ""))
    else:
        sys.exit(f"not refused: {what}")


def machine(size="Standard_D2s_v5", zone=None):
    interface = {"name": "nic", "properties": {"primary": True, "deleteOption": "Delete", "ipConfigurations": [
        {"name": "ip", "properties": {"subnet": {"id": "/subscriptions/sub/subnet"}}}]}}
    body = {"location": place, "properties": {
        "hardwareProfile": {"vmSize": size},
        "storageProfile": {"osDisk": {"createOption": "FromImage", "deleteOption": "Delete"}},
        "networkProfile": {"networkApiVersion": "2020-11-01", "networkInterfaceConfigurations": [interface]}}}
    if zone:
        body["zones"] = [zone]
    return body


def disk(size=4, **more):
    return {"location": place, "sku": {"name": "Premium_LRS"},
            "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": size}, **more}


vm = client.virtual_machines.begin_create_or_update(group, "v1", machine()).result()
held("a machine is made", vm.provisioning_state == "Succeeded" and vm.storage_profile.os_disk.managed_disk.id)
view = client.virtual_machines.instance_view(group, "v1")
held("it runs", "PowerState/running" in [status.code for status in view.statuses])

one = client.disks.begin_create_or_update(group, "d1", disk()).result()
held("a disk is made", one.provisioning_state == "Succeeded" and one.disk_state == "Unattached")
client.virtual_machines.begin_attach_detach_data_disks(
    group, "v1", {"dataDisksToAttach": [{"diskId": one.id, "lun": 3}]}).result()
held("it is attached", client.disks.get(group, "d1").managed_by.lower() == vm.id.lower())
held("at its lun", [d.lun for d in client.virtual_machines.get(group, "v1").storage_profile.data_disks] == [3])
refused("an attached disk is not deleted", HttpResponseError, "OperationNotAllowed",
        lambda: client.disks.begin_delete(group, "d1").result())

client.virtual_machines.begin_create_or_update(group, "v2", {**machine(), "tags": {"a": "b"}}).result()
refused("a disk is on one machine", ResourceExistsError, "ConflictingUserInput",
        lambda: client.virtual_machines.begin_attach_detach_data_disks(
            group, "v2", {"dataDisksToAttach": [{"diskId": one.id}]}).result())
held("two machines are listed", {v.name for v in client.virtual_machines.list(group)} == {"v1", "v2"})

snapshot = client.snapshots.begin_create_or_update(group, "s1", {"location": place, "properties": {
    "incremental": True, "creationData": {"createOption": "Copy", "sourceResourceId": one.id}}}).result()
held("a snapshot is made", snapshot.completion_percent == 100.0)
copy = client.disks.begin_create_or_update(group, "d2", {"location": place, "properties": {
    "creationData": {"createOption": "Copy", "sourceResourceId": snapshot.id}}}).result()
held("a disk is copied from it", copy.disk_size_gb == 4)

client.virtual_machines.begin_attach_detach_data_disks(
    group, "v1", {"dataDisksToDetach": [{"diskId": one.id, "detachOption": "ForceDetach"}]}).result()
held("it is detached", client.disks.get(group, "d1").managed_by is None)
held("and not on the machine", not client.virtual_machines.get(group, "v1").storage_profile.data_disks)

client.virtual_machines.begin_deallocate(group, "v1").result()
view = client.virtual_machines.instance_view(group, "v1")
held("it is deallocated", "PowerState/deallocated" in [status.code for status in view.statuses])
client.virtual_machines.begin_start(group, "v1").result()
updated = client.virtual_machines.begin_update(group, "v1", {"tags": {"pool": "x"}}).result()
held("its tags are changed", updated.tags == {"pool": "x"})
refused("a stale etag is refused", HttpResponseError, "PreconditionFailed",
        lambda: client.virtual_machines.begin_create_or_update(group, "v1", machine(), if_match='"999"').result())

refused("what is not there is not found", ResourceNotFoundError, "ResourceNotFound",
        lambda: client.virtual_machines.get(group, "nobody"))
refused("a full size fails in its operation", HttpResponseError, "AllocationFailed",
        lambda: client.virtual_machines.begin_create_or_update(group, "v3", machine("Standard_Full")).result())
held("and the machine stays as failed", client.virtual_machines.get(group, "v3").provisioning_state == "Failed")

image = {"location": place, "properties": {
    "hyperVGeneration": "V2", "sourceVirtualMachine": {"id": client.virtual_machines.get(group, "v2").id}}}
refused("a machine that runs is not generalized", HttpResponseError, "OperationNotAllowed",
        lambda: client.virtual_machines.generalize(group, "v2"))
client.virtual_machines.begin_deallocate(group, "v2").result()
refused("nor one copied that is not", HttpResponseError, "OperationNotAllowed",
        lambda: client.images.begin_create_or_update(group, "i1", image).result())
client.virtual_machines.generalize(group, "v2")
view = client.virtual_machines.instance_view(group, "v2")
held("it is generalized", "OSState/generalized" in [status.code for status in view.statuses])
refused("and boots no more", HttpResponseError, "OperationNotAllowed",
        lambda: client.virtual_machines.begin_start(group, "v2").result())
made = client.images.begin_create_or_update(group, "i1", image).result()
held("an image is made of it", made.provisioning_state == "Succeeded" and made.storage_profile.os_disk.os_type)
client.images.begin_delete(group, "i1").result()
held("no image is left", list(client.images.list_by_resource_group(group)) == [])

for name in ("v1", "v2", "v3"):
    client.virtual_machines.begin_delete(group, name, force_deletion=True).result()
held("no machine is left", list(client.virtual_machines.list(group)) == [])
for name in ("d1", "d2"):
    client.disks.begin_delete(group, name).result()
client.snapshots.begin_delete(group, "s1").result()
held("no disk is left", list(client.disks.list()) == [] and list(client.snapshots.list()) == [])
held("a second deletion is no error", client.disks.begin_delete(group, "d1").result() is None)

# The third look at this disk is refused with 429; the SDK waits as long as it is told and asks again.
client.disks.begin_create_or_update(group, "busy", disk()).result()
for _ in range(4):
    client.disks.get(group, "busy")
held("a 429 is waited for", True)
